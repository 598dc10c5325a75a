"""python -m pedigree"""

from pedigree.cli import main

main()
