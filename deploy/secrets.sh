#!/bin/sh
# Writes the secrets of docker-compose.yml into a folder, each once: secrets.sh FOLDER
# The folder is for its owner only; the files can be read by all, for they are mounted as they are, and the service runs as
# a user of its own.
set -eu
folder=$1
umask 077
mkdir -p "$folder"

for name in admin_key database_password redis_password; do
    if [ ! -s "$folder/$name" ]; then
        prefix=
        [ "$name" != admin_key ] || prefix=ww-
        printf '%s%s\n' "$prefix" "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')" > "$folder/$name"
        chmod 444 "$folder/$name"
    fi
done
echo "The secrets are in $folder. The key of the API's administrator is in $folder/admin_key."
