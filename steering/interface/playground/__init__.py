"""The Playground tab: sliders, answers side by side, next-token bars."""
