"""Models: what a Wan pipeline is, where to find one, and the small one that ships with the workbench."""
