"""The command line, `crossmask COMMAND`: a module for each question.

It is installed as a package of its own, `crossmask_cli`: `import crossmask` loads torch, which takes seconds, and
`crossmask --help` needs none of it. So modules here import `crossmask` inside of their commands only.
"""
