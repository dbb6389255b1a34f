"""Where bytes come from and go to: one file per kind of place, each with the same two functions.

    open_read(url, ...)  -> a binary stream: read, read1, readinto, close, context manager
    open_write(url, ...) -> a binary stream: write, close, context manager

    urls         scheme of a url; path of a file: url
    local        files; atomic: files that appear complete or not at all
    standard     the process's own input and output
    pipe         a command's output or input, its exit status checked, over process
    commands     schemes that a command-line tool serves: curl, gsutil, ais
    http         http and https, over pool (connections of this process), with status (what answers mean)
    http_upload  writing by PUT
    huggingface  hf:// as https
    verbose      GOPEN_VERBOSE

Rules: read(n) gives n bytes unless the data ends; read1(n) gives what is there. Data that arrived is given out before
the error that followed it, to the byte with read1, which is what the tar reader uses. A stream that ended wrongly
raises OpenError where its end would be reported, and again when asked again. Closing early is no error and leaves
nothing behind: no descriptor, no process, no thread. Nothing here looks into the bytes. Errors name the url, without
its credentials.
"""
