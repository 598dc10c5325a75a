"""What the card stage is made of: inputs, scores, plots, lineage, words, the hub's metadata, the two templates."""
