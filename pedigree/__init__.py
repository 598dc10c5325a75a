"""The command line of Pedigree: recipes, the preflight, the summary, the schema of params.yaml."""
