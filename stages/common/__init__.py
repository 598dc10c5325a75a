"""What must be identical in every stage: parameters, files, rows, ledger, chat text, models."""
