#!/usr/bin/env bash
# machine.sh: a short name of this machine's processor for a page of docs/performance: zen4, zen5, or what the system says of it.
set -euo pipefail

field() { awk -F': *' -v key="$1" '$1 ~ "^" key "[ \t]*$" { print $2; exit }' /proc/cpuinfo; }
if [ ! -r /proc/cpuinfo ]; then
	sysctl -n machdep.cpu.brand_string | tr 'A-Z ' 'a-z-'
	exit
fi
vendor=$(field vendor_id) family=$(field 'cpu family')
case $vendor/$family/$(field flags) in
AuthenticAMD/26/*) echo zen5 ;;
AuthenticAMD/25/*avx512f*) echo zen4 ;;
AuthenticAMD/25/*) echo zen3 ;;
*) echo "${vendor:-$(uname -m)}-${family:-$(field 'CPU part')}-$(field model)" | tr 'A-Z' 'a-z' ;;
esac
