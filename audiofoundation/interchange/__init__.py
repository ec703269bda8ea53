"""Datasets in the forms that others read: Hugging Face on disk, WebDataset, JSON Lines, AudioCraft."""
