# Connects with psycopg, by libpq: a case a line on standard input (see cases.ts), what came of it on standard output.

import sys

import psycopg

print("version\tpsycopg %s, libpq %d" % (psycopg.__version__, psycopg.pq.version() // 10000), flush=True)
for line in sys.stdin:
    case, *words = line.rstrip("\n").split("\t")
    try:
        with psycopg.connect(**dict(word.split("=", 1) for word in words), connect_timeout=10) as connection:
            (text,) = connection.execute("SELECT repeat('x', %s)", (300000,), prepare=True).fetchone()
            assert text == "x" * 300000
            said = "encrypted" if connection.pgconn.ssl_in_use else "plain"
    except Exception as error:
        said = " ".join(str(error).split())
    print("%s\t%s" % (case, said), flush=True)
