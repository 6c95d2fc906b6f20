"""Trained networks and their simulated spikes in the file formats of other tools, one module for each format.

The module of a format has

    FILE_NAME   name of the file or folder that it writes within RUN/export
    is_export   whether a path is such an export, without other files, which overwrite=true replaces
    HOW_TO_OPEN one line for the user, with {out} in place of the path
    write(trained, path)   writes the export to `path`, which does not exist yet
"""
