"""Where bytes come from and go to: one file per kind of place, behind one seam.

    places       the seam: open_read, read_range, stat, open_write, entries of any url
    target       what stands behind a url: an http address and a signature; Stat, Entry
    options      StorageOptions: how patiently, with how many connections
    http         objects as streams that go on where they broke, over exchange (one request, retried),
                 retry (counting and waiting), pool and connections (those of this process), status (what answers
                 mean), discretion (nothing secret in urllib3's log lines)
    web          http and https urls as they are
    s3           Amazon S3 and servers that speak its language, over aws (who asks) and sigv4 (the signature)
    pages        listings of object stores, page by page
    gcs          Google Cloud Storage
    azure        Azure's blobs, over sharedkey (the signature)
    huggingface  hf:// as https
    anywhere     all other schemes, through fsspec
    files        local files and file: urls, over local; atomic: files that appear complete or not at all
    upload       bytes to an object, in parts, whole or not at all; http_upload, s3_upload,
                 gcs_upload, azure_upload: how a place takes them
    owned        streams that end well or are given up, by the process that began them
    standard     the process's own input and output
    pipe         a command's output or input, its exit status checked, over process
    commands     schemes that a command-line tool serves: curl, gsutil, aws, az, ais
    urls         scheme of a url; path of a file: url
    verbose      GOPEN_VERBOSE

Rules: read(n) gives n bytes unless the data ends; read1(n) gives what is there. Data that arrived is given out before
the error that followed it, to the byte with read1, which is what the tar reader uses. A stream that ended wrongly
raises OpenError where its end would be reported, and again when asked again. Closing early is no error and leaves
nothing behind: no descriptor, no process, no thread. Nothing here looks into the bytes. Errors name the url, without
its credentials.
"""
