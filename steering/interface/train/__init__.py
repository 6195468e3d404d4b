"""The Train tab: bring pairs, choose settings, train, save."""
