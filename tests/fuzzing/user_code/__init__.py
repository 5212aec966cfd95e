"""Code as users write it. Each run of a program executes these files in a namespace of its own.

So two runs of one program share no class, no global variable and no function.
"""
