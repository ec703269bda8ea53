"""A page about a dataset: what it holds, how it measures, what some of it looks like."""
