"""Where bytes come from and go to: one file per kind of place, behind one seam, `places`.

Rules: read(n) gives n bytes unless the data ends; read1(n) gives what is there. Data that arrived is given out before
the error that followed it, to the byte with read1, which is what the tar reader uses. A stream that ended wrongly
raises OpenError where its end would be reported, and again when asked again. Closing early is no error and leaves
nothing behind: no descriptor, no process, no thread. Nothing here looks into the bytes. Errors name the url, without
its credentials.
"""
