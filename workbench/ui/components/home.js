export const mount = element => { element.textContent = ''; };
