"""Colours and fonts. The rest of the look is in assets/app.css."""

import gradio as gr
from gradio.themes.utils import fonts

BUNDLED = (400, 700)  # the semi-bold files that gradio 6.31 ships hold no Latin letters

INK = gr.themes.Color(  # a blue-green ink: the setting
    "#eef7f6",
    "#d5ebe8",
    "#aed8d3",
    "#7dbfb8",
    "#4aa39b",
    "#2b877f",
    "#1f6d67",
    "#1b5753",
    "#184744",
    "#143b39",
    "#0b2423",
)
PAPER = gr.themes.Color(  # warm greys
    "#faf8f4",
    "#f3efe8",
    "#e6e0d5",
    "#d2cabb",
    "#a59c8c",
    "#7b7366",
    "#5c564c",
    "#45413a",
    "#2c2a26",
    "#1d1c19",
    "#141311",
)


def theme() -> gr.themes.Base:
    """Paper and ink, with fonts that ship with gradio: nothing is fetched from outside."""
    return gr.themes.Base(
        primary_hue=INK,
        secondary_hue=INK,
        neutral_hue=PAPER,
        radius_size=gr.themes.sizes.radius_md,
        font=[fonts.LocalFont("IBM Plex Sans", weights=BUNDLED), "ui-sans-serif", "sans-serif"],
        font_mono=[fonts.LocalFont("IBM Plex Mono", weights=BUNDLED), "monospace"],
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        body_text_color="*neutral_800",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_dark="*neutral_950",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_border_width="1px",
        button_border_width_dark="1px",
        input_border_width="1px",
        shadow_drop="none",
        shadow_drop_lg="none",
    )
