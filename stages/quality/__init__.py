"""Filters of length, language and simple quality: which rows would teach a model something bad."""
