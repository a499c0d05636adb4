"""Exchange with transformers: trained models as folders it loads, and its folders as runs."""
