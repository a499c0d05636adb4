"""Corpus, tokenizers, token files, order: from text to batches."""
