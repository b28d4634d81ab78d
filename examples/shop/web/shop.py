#!/usr/bin/env python3
"""The shop's page: goods from postgres, visits counted in redis. Nothing but Debian's python3-psycopg2 is needed."""

import html
import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2

SECRET = "/run/secrets/db-password"


def address(name, default):
    host, port = os.environ.get(name, default).rsplit(":", 1)
    return host, int(port)


def visits():
    """INCR, as redis speaks it."""
    with socket.create_connection(address("CACHE", "cache:6379"), timeout=5) as stream:
        stream.sendall(b"*2\r\n$4\r\nINCR\r\n$6\r\nvisits\r\n")
        line = stream.makefile("rb").readline()
    if not line.startswith(b":"):
        raise OSError("redis says " + line.decode(errors="replace").strip())
    return int(line[1:])


def goods():
    with open(SECRET, encoding="utf-8") as file:
        password = file.read().strip()
    host, port = address("DATABASE", "db:5432")
    connection = psycopg2.connect(
        host=host, port=port, dbname="shop", user="shop", password=password, connect_timeout=5
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT name, cents FROM goods ORDER BY name")
            return cursor.fetchall()
    finally:
        connection.close()


def page():
    rows = "".join(
        f"<li>{html.escape(name)}: {cents // 100}.{cents % 100:02d}</li>\n" for name, cents in goods()
    )
    greeting = html.escape(os.environ.get("GREETING", "Welcome"))
    return f"<!doctype html>\n<title>Shop</title>\n<h1>{greeting}</h1>\n<ul>\n{rows}</ul>\n<p>visit {visits()}</p>\n"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            status, body = 200, page()
        except (OSError, psycopg2.Error) as error:
            # What went wrong is for the log: a page shows nobody how the shop is built.
            self.log_error("%s", str(error).strip())
            status, body = 503, "<!doctype html>\n<title>Shop</title>\n<p>closed for the moment</p>\n"
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
