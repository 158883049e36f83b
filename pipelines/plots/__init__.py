"""The figures of metrics, samples and training curves, in one style."""
