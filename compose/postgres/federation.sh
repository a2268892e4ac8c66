#!/bin/sh
# The database and the role of work's sidecar, with no more rights than docs/postgresql.md asks for. Run once, as a superuser, by the image
# of PostgreSQL (/docker-entrypoint-initdb.d) or by compose/netns. FEDERATION_DB_PASSWORD is the role's.
set -eu
psql -v ON_ERROR_STOP=1 -v "password=${FEDERATION_DB_PASSWORD:?}" --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
CREATE ROLE mosaic LOGIN PASSWORD :'password';
CREATE DATABASE federation ENCODING 'UTF8';
\connect federation
REVOKE ALL ON SCHEMA public FROM PUBLIC;
REVOKE CONNECT, TEMPORARY ON DATABASE federation FROM PUBLIC;
GRANT CONNECT ON DATABASE federation TO mosaic;
CREATE SCHEMA mosaic_federation AUTHORIZATION mosaic;
SQL
