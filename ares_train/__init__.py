"""ares_train: training of models that think as much as a problem deserves."""
