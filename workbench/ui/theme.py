"""Gradio's own controls in the colours and sizes of `tokens.css`, by name: no value is stated here."""

from __future__ import annotations

import gradio as gr

TOKENS = {
    "body_background_fill": "--ground",
    "body_text_color": "--text",
    "body_text_color_subdued": "--text-3",
    "background_fill_primary": "--surface",
    "background_fill_secondary": "--sunken",
    "block_background_fill": "--surface",
    "block_border_color": "--line",
    "block_label_background_fill": "--surface",
    "block_label_text_color": "--text-2",
    "block_title_text_color": "--text-2",
    "block_info_text_color": "--text-3",
    "border_color_primary": "--line",
    "border_color_accent": "--accent",
    "color_accent": "--accent",
    "color_accent_soft": "--accent-soft",
    "link_text_color": "--accent",
    "link_text_color_hover": "--accent-hover",
    "link_text_color_visited": "--accent",
    "link_text_color_active": "--accent",
    "input_background_fill": "--surface",
    "input_background_fill_focus": "--surface",
    "input_border_color": "--line-control",
    "input_border_color_focus": "--accent",
    "input_border_color_hover": "--text-3",
    "input_placeholder_color": "--text-3",
    "button_primary_background_fill": "--accent",
    "button_primary_background_fill_hover": "--accent-hover",
    "button_primary_border_color": "--accent",
    "button_primary_border_color_hover": "--accent-hover",
    "button_primary_text_color": "--on-accent",
    "button_primary_text_color_hover": "--on-accent",
    "button_secondary_background_fill": "--surface",
    "button_secondary_background_fill_hover": "--hover",
    "button_secondary_border_color": "--line-strong",
    "button_secondary_border_color_hover": "--line-strong",
    "button_secondary_text_color": "--text",
    "button_secondary_text_color_hover": "--text",
    "error_background_fill": "--danger-soft",
    "error_border_color": "--danger",
    "error_text_color": "--text",
    "error_icon_color": "--danger",
    "checkbox_background_color": "--sunken",
    "checkbox_background_color_selected": "--accent",
    "checkbox_border_color": "--line-control",
    "checkbox_border_color_selected": "--accent",
}
NONE = (
    "block_shadow",
    "button_primary_shadow",
    "button_secondary_shadow",
    "input_shadow",
    "input_shadow_focus",
)
FONT = "var(--font)"
MONO = "var(--font-mono)"


def theme() -> gr.themes.Base:
    """Return gradio's plainest theme with every colour taken from our tokens."""
    colours = {name: f"var({token})" for name, token in TOKENS.items()}
    dark = {f"{name}_dark": value for name, value in colours.items()}
    return gr.themes.Base(font=["sans-serif"], font_mono=["monospace"], text_size="sm").set(
        **colours,
        **_known(dark),
        **_known(dict.fromkeys(NONE, "none")),
        **_known({f"{name}_dark": "none" for name in NONE}),
        block_radius="var(--radius)",
        container_radius="var(--radius)",
        input_radius="var(--radius)",
        button_large_radius="var(--radius)",
        button_medium_radius="var(--radius)",
        button_small_radius="var(--radius)",
        block_padding="0",
        block_border_width="0px",
        layout_gap="var(--s3)",
        form_gap_width="0px",
    )


def _known(values: dict[str, str]) -> dict[str, str]:
    """Keep the variables that this version of gradio has; not every colour has a dark twin."""
    import inspect

    names = inspect.signature(gr.themes.Base.set).parameters
    return {name: value for name, value in values.items() if name in names}
