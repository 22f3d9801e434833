#!/bin/sh
# Starts Walden as Complement expects a server: named SERVER_NAME, with a certificate of Complement's authority, and open where
# its tests want it open. Run again in a container that has run before, it carries on with the data.
set -eu
: "${SERVER_NAME:?is the server name, and Complement sets it}"
data=${WALDEN_DATA_DIR:-/walden}
authority=${COMPLEMENT_CA:-/complement/ca}
certificate=$data/$SERVER_NAME.crt
key=$data/$SERVER_NAME.key

mkdir -p "$data"
if [ ! -e "$certificate" ]; then
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$key" -out "$data/request.pem" \
        -subj "/CN=$SERVER_NAME" 2>/dev/null
    echo "subjectAltName=DNS:$SERVER_NAME" > "$data/extensions"
    openssl x509 -req -in "$data/request.pem" -CA "$authority/ca.crt" -CAkey "$authority/ca.key" -days 30 \
        -set_serial "0x$(openssl rand -hex 12)" -extfile "$data/extensions" -out "$certificate.unfinished" 2>/dev/null
    mv "$certificate.unfinished" "$certificate"
    rm "$data/request.pem" "$data/extensions"
fi

export WALDEN_DATA_DIR="$data"
export WALDEN_SERVER_NAME="$SERVER_NAME"
export WALDEN_CLIENT_LISTEN="${WALDEN_CLIENT_LISTEN:-0.0.0.0:8008}"
export WALDEN_FEDERATION_LISTEN="${WALDEN_FEDERATION_LISTEN:-0.0.0.0:8448}"
export WALDEN_FEDERATION_TLS_CERTIFICATE="$certificate"
export WALDEN_FEDERATION_TLS_KEY="$key"
export WALDEN_FEDERATION_EXTRA_CA_FILE="$authority/ca.crt"
# What the tests assume: accounts for anybody, and rooms in which the creator has a power level like others.
export WALDEN_REGISTRATION=open
export WALDEN_REGISTRATION_SHARED_SECRET=complement
export WALDEN_SERVER_DEFAULT_ROOM_VERSION=11
export WALDEN_RATE_LIMITS=off
# Media for anybody, by the paths of old, and previews of pages on the host that runs the tests.
export WALDEN_MEDIA_UNAUTHENTICATED=on
export WALDEN_MEDIA_PREVIEW_ALLOWED_NETWORKS=10.0.0.0/8,172.16.0.0/12,192.168.0.0/16
# A container lives for minutes, next to others.
export WALDEN_DATABASE_EMBEDDED_SHARED_BUFFERS=64MB

# Complement shows what a container printed; the components print into files.
mkdir -p "$data/logs"
for name in api federation roomserver-0 supervisor; do
    touch "$data/logs/$name.log"
done
tail --pid=$$ -q -n 0 -F "$data"/logs/*.log 2>/dev/null &
exec walden up
