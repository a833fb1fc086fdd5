"""What runs leave: records, weights, panels and executed notebooks, and the folder that holds them.

Read the modules in this order: folder, records, pictures, provenance, weights, interpreter, notebooks.
"""
