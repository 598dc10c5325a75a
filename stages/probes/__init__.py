"""Planted cases by which the data stages measure themselves: made here, read and scored in stages/common/probes.py."""
