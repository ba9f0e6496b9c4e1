#!/bin/sh
# Makes what docker-compose.yml needs and git does not have: passwords in .env, and a token of an administrator.
# What is there already stays. The first argument is the command fn-node.
set -eu
fn_node=$1
tokens=deploy/compose/secrets/api-tokens.yml
umask 077

random() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }

touch .env
for name in POSTGRES_PASSWORD REDIS_PASSWORD S3_SECRET FN_RUNNER_TOKEN GRAFANA_PASSWORD; do
    grep -q "^$name=." .env || echo "$name=$(random)" >> .env
done
if ! [ -e "$tokens" ]; then
    mkdir -p "${tokens%/*}"
    token=$("$fn_node" token --name administrator --role admin --file "$tokens")
    # Only hashes are in it; the nodes read it as another user.
    chmod 755 "${tokens%/*}"
    chmod 644 "$tokens"
    sed -i '/^FN_TOKEN=/d' .env
    echo "FN_TOKEN=$token" >> .env
fi
echo "Passwords are in .env, and FN_TOKEN, with which the API is asked: curl -H \"Authorization: Bearer \$FN_TOKEN\""
