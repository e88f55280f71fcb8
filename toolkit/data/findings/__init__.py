"""What is wrong with a dataset, and where: rules over whole annotation files, as columns, and over every picture.

`toolkit.data.coco` refuses what these rules call an error; `toolkit.data.validate` tells all of it.

file.py reads an annotation file into columns; structure.py, pictures.py, geometry.py and splits.py hold the rules that
training needs; quality.py, looks.py, duplicates.py, statistics.py and ceiling.py the others. table.py and codes.yaml
say what each finding means.
"""
