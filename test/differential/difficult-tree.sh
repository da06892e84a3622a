#!/usr/bin/env bash
# Makes the tree of difficult.test.ts, as root, with the usual tools.
# usage: difficult-tree.sh TREE ARCHIVE1 ARCHIVE2 ARCHIVE3 ARCHIVE4 ARCHIVE5
# TREE ends equal to the layers: every deletion and replacement is made in it, too, by rm, mv and others.
set -euo pipefail
tree=$1 first=$2 second=$3 third=$4 fourth=$5 fifth=$6
export LC_ALL=C TZ=UTC
mkdir -p "$tree"
cd "$tree"
pax=(tar --format=pax --numeric-owner --xattrs '--xattrs-include=*' --no-recursion --null)
gnu=(tar --format=gnu --numeric-owner --no-recursion --null)
whiteouts=$(mktemp -d)
trap 'rm -rf "$whiteouts"' EXIT

# --- 1: pax, with all kinds of records ---
mkdir names modes links devices attributes holes times replaced hidden
for name in $'caf\xe9' $'\xff\xfe\x80' $'two\nlines' $'tab\there' 'back\slash' '-n' ' blanks ' '"quotes"' $'\e[31mred' $'gr\303\274n' '%s' '*' '~' '.hidden' '...'; do
  printf %s "$name" >"names/$name"
done
printf 255 >"names/$(printf 'n%.0s' {1..255})"
deep=names; for i in {1..12}; do deep+=/$(printf 'd%.0s' {1..90}); done
mkdir -p "$deep"; echo deep >"$deep/file"
ln -s "$(printf 'far/%.0s' {1..300})" names/long-link
for mode in 0000 0400 0755 4755 2755 6711 1777 7777; do echo "$mode" >"modes/$mode"; mkdir "modes/d$mode"; echo x >"modes/d$mode/inside"; chmod "$mode" "modes/$mode" "modes/d$mode"; done
echo owner >modes/owner; chown 4294967294:4294967293 modes/owner; chmod 6755 modes/owner
echo user >modes/user; chown 1000:100 modes/user
echo one >links/a; ln links/a links/b; ln links/a links/c; mkdir links/d; ln links/a links/d/e
ln -s a links/to-a; ln -P links/to-a links/to-a-too
ln -s /etc/../../names links/absolute; ln -s ../../../../names links/climbing; ln -s missing links/dangling; ln -s loop links/loop
mknod devices/null c 1 3; mknod devices/large c 511 1048575; mknod devices/disk b 8 1; chmod 0660 devices/disk; ln devices/null devices/null-too
mkfifo -m 0622 devices/fifo; ln devices/fifo devices/fifo-too
cp /bin/true attributes/capable; setcap cap_net_raw,cap_net_bind_service+ep attributes/capable; ln attributes/capable attributes/capable-too
cp /bin/true attributes/owned; chown 1000:1000 attributes/owned; setcap cap_sys_time=ei attributes/owned; chmod 0750 attributes/owned
echo user >attributes/user; setfattr -n user.text -v 'a=b' attributes/user; setfattr -n user.bytes -v 0x000aff3d0a attributes/user; setfattr -n user.empty attributes/user
ln attributes/user attributes/user-too
echo trusted >attributes/trusted; setfattr -n trusted.note -v yes attributes/trusted
mkdir attributes/listed; setfacl -m u:1234:rwx,g:4321:r-x,d:u:1234:rwx,d:g::r-x attributes/listed; echo listed >attributes/listed/file; setfacl -m u:1234:r-- attributes/listed/file
: >holes/empty; truncate -s 3M holes/only-a-hole
for at in 0 200 400 600 800; do printf 'data at %s' "$at" | dd of=holes/many bs=4096 seek="$at" conv=notrunc status=none; done; truncate -s 4M holes/many
seq 100000 >holes/none
for time in '2001-02-03 04:05:06.123456789' '1969-12-31 23:59:58.750000001' '1901-01-01' '2040-06-07 08:09:10.999999999' '2300-01-01 00:00:00.000000001'; do
  touch -d "$time" "times/$time"; mkdir "times/d $time"; touch -d "$time" "times/d $time"; ln -s x "times/l $time"; touch -hd "$time" "times/l $time"
done
for name in file dir link fifo device; do mkdir "replaced/$name"; for to in file dir link fifo; do
  case $name in file) echo old >"replaced/$name/$to" ;; dir) mkdir -p "replaced/$name/$to/a/b" ;; link) ln -s ../../hidden "replaced/$name/$to" ;;
    fifo) mkfifo "replaced/$name/$to" ;; device) mknod "replaced/$name/$to" c 1 5 ;; esac
done; done
mkdir -p hidden/all/deep hidden/some; echo x | tee hidden/all/a hidden/all/deep/b hidden/some/gone hidden/some/stays >hidden/secret
chmod 0711 .; touch -d '2010-10-10 10:10:10.1010101' .
find . -depth -name . -o -print0 | sort -z | { printf './\0'; cat; } | "${pax[@]}" --sparse -cf "$first" -T -

# --- 2: GNU tar's own format: long names, base-256 numbers ---
mkdir gnu; cp -a names/. gnu; cp -a modes gnu/modes; echo x >gnu/time; touch -d 1950-01-01 gnu/time
find gnu -exec touch -hd '2015-05-05 05:05:05' {} +
find gnu -print0 | sort -z | "${gnu[@]}" -cf "$second" -T -

# --- 3: replaced files: broken links, other types, moved capabilities ---
rm links/a; echo two >links/a; rm links/d/e; ln links/a links/d/e
rm links/to-a; ln -s b links/to-a
ln links/b links/late
cp attributes/capable attributes/copy; rm attributes/capable; cp attributes/copy attributes/capable; setcap cap_chown=p attributes/capable; rm attributes/copy
rm attributes/user; echo again >attributes/user
for name in file dir link fifo device; do for to in file dir link fifo; do
  # A directory that replaces a directory keeps its content.
  [ "$name$to" = dirdir ] || rm -rf "replaced/$name/$to"
  case $to in file) echo new >"replaced/$name/$to" ;; dir) mkdir -p "replaced/$name/$to"; echo new >"replaced/$name/$to/new" ;; link) ln -s new "replaced/$name/$to" ;;
    fifo) mkfifo "replaced/$name/$to" ;; esac
done; done
rm devices/null; mknod -m 0666 devices/null c 1 7
chmod 0500 modes/d0755
# The layer has links/b, too, as the target of links/late; tar writes one of the two as a link.
find links/a links/b links/c links/d links/late links/to-a links attributes/capable attributes/user attributes replaced devices/null devices modes/d0755 -print0 |
  sort -zu | "${pax[@]}" -cf "$third" -T -

# --- 4: whiteouts and opaque markers ---
hide() { mkdir -p "$whiteouts/${1%/*}"; : >"$whiteouts/${1%/*}/.wh.${1##*/}"; rm -rf "$1"; }
hide $'names/caf\xe9'; hide $'names/\xff\xfe\x80'; hide $'names/two\nlines'; hide names/-n; hide 'names/...'; hide "names/$(printf 'd%.0s' {1..90})"
hide links/c; hide links/absolute; hide links/to-a-too; hide links/dangling
hide devices/fifo; hide devices/large; hide modes/0000; hide modes/d0000; hide modes/d1777; hide attributes/capable-too; hide attributes/listed/file
hide hidden/secret
rm -rf hidden/all hidden/some/gone hidden/some/stays; mkdir hidden/all; echo y >hidden/some/stays; echo new >hidden/all/new
mkdir -p "$whiteouts/hidden/all" "$whiteouts/hidden/some"; : >"$whiteouts/hidden/all/.wh..wh..opq"; : >"$whiteouts/hidden/some/.wh..wh..opq"
{ printf '%s\0' names links devices modes attributes attributes/listed; find hidden -print0; } | sort -z | "${pax[@]}" -cf "$fourth" -T -
(cd "$whiteouts" && find . -type f -printf '%P\0' | tar --format=pax --null -rf "$fourth" -T -)

# --- 5: a sparse file of GNU tar's old kind ---
cp --sparse=always holes/many holes/old; touch -d '2020-02-02' holes holes/old
printf '%s\0' holes holes/old | "${gnu[@]}" --sparse -cf "$fifth" -T -
touch -d '2010-10-10 10:10:10.1010101' .
