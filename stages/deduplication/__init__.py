"""What stages/dedup.py is made of: signatures, buckets, exact comparison, the second look."""
