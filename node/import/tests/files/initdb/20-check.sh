#!/bin/sh
exec psql -c "SELECT 1"
