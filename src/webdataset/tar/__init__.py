"""The tar format: header blocks, records, sparse maps, compression; reading them in order and fast.

References are to POSIX.1-2017 (the `pax` utility: ustar interchange format and pax headers) and to
the GNU tar manual (basic tar format, GNU extensions, sparse formats). `header`, `pax`, `sparse`,
`scan` and `format` do no input or output.
"""
