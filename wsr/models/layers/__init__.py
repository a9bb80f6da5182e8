"""The pieces that BERT-like encoders share."""
