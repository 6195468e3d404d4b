"""The model line in the masthead, which opens the chooser of another model."""
