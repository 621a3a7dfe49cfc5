#!/bin/sh
# cowclooproot INTERFACE ...: dracut calls this when the network is up.
echo "$1" >/tmp/cowcloop.network
