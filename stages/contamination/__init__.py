"""What decontaminate compares: the items of the evaluation, the overlaps, the worst cases."""
