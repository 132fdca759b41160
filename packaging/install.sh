#!/bin/sh
# What `make install` and `make uninstall` do. Each version lies in a directory of its own, which
# nothing changes once it is there: a service that runs goes on to find its files.
#
#   PREFIX/lib/iifuse/VERSION.XXXXXX   a virtual environment, and the list of the files beside it
#   PREFIX/lib/iifuse/current          a link to the one that counts
#   PREFIX/sbin/NAME                   links to its programs
set -eu

site=$PREFIX/lib/iifuse
root=$DESTDIR$site

# in_use PATH: print the processes that were started from below it.
in_use() {
    printf '%s/\n' "$1" | grep -lsaFf - /proc/[0-9]*/cmdline | sed 's|/proc/||; s|/.*||' | xargs
}

# point TARGET LINK: in one step, so that the link is never missing.
point() {
    ln -sfn "$1" "$2.new"
    mv -T "$2.new" "$2"
}

# put MODE PATH: standard input becomes this file.
put() {
    mkdir -p "$(dirname "$DESTDIR$2")"
    cat >"$DESTDIR$2.new"
    chmod "$1" "$DESTDIR$2.new"
    mv "$DESTDIR$2.new" "$DESTDIR$2"
    echo "$2" >>"$made/files"
}

# link TARGET PATH
link() {
    point "$1" "$DESTDIR$2"
    echo "$2" >>"$made/files"
}

build() {
    mkdir -p "$root"
    made=$(mktemp -d "$root/$VERSION.XXXXXX")
    trap 'rm -rf "$made"' EXIT
    chmod 0755 "$made"
    # pip lies among the wheels and runs from there: to install it first takes longer than the rest.
    "$PYTHON" -m venv --without-pip "$made"
    "$made/bin/python" -I "$(echo "$WHEELS"/pip-*.whl)/pip" --quiet --disable-pip-version-check --no-input install \
        --no-index --find-links "$WHEELS" iifuse
    # The scripts are told where they will lie, which DESTDIR hides from pip.
    test -z "$DESTDIR" || grep -rlIF "$made" "$made/bin" "$made/pyvenv.cfg" |
        xargs sed -i "s|$made|$site/${made##*/}|g"
}

swap() {
    mkdir -p "$DESTDIR$PREFIX/sbin"
    point "${made##*/}" "$root/current"
    trap - EXIT
    for name in $PROGRAMS; do
        link "$site/current/bin/$name" "$PREFIX/sbin/$name"
    done
}

accompany() {
    for page in man/*.[0-9]; do
        put 0644 "$PREFIX/share/man/man${page##*.}/${page#man/}" <"$page"
    done
    sed "s|/usr/local/sbin|$PREFIX/sbin|g" 'systemd/iifuse@.service' |
        put 0644 "$PREFIX/lib/systemd/system/iifuse@.service"
    # Bash looks for a file by the name of the program.
    "$made/bin/python" -m iitools.completion bash |
        put 0644 "$PREFIX/share/bash-completion/completions/iifuse"
    for name in $PROGRAMS; do
        test "$name" = iifuse || link iifuse "$PREFIX/share/bash-completion/completions/$name"
    done
    "$made/bin/python" -m iitools.completion zsh |
        put 0644 "$PREFIX/share/zsh/site-functions/_iifuse"
}

# Whatever is neither current nor in use, also what version 0.1.0 has left in the place itself.
clean_up() {
    for old in "$root"/*/; do
        old=${old%/}
        case "${old##*/}" in current | "${made##*/}" | bin | include | lib | lib64 | share) continue ;; esac
        remove_unused "$old" "$old" "$old/files"
    done
    test ! -e "$root/pyvenv.cfg" || remove_unused "$root/bin" \
        "$root/bin" "$root/include" "$root/lib" "$root/lib64" "$root/share" "$root/pyvenv.cfg"
}

# remove_unused PROGRAMS PATH...
remove_unused() {
    users=$(in_use "$1")
    shift
    if test -n "$users"; then
        echo "kept for process $users, which goes on with it until it is started again: $1"
    else
        rm -rf "$@"
    fi
}

# forget_missing: files that an older version had and this one has not.
forget_missing() {
    test ! -e "$before/files" || grep -vxFf "$made/files" "$before/files" |
        while read -r name; do rm -f "$DESTDIR$name"; done
}

# how_to_stop PROCESS: print what ends it, and where it shows its files if that can be told.
how_to_stop() {
    unit=$(sed -n 's|.*/\(iifuse@[^/]*\)\.service$|\1|p' "/proc/$1/cgroup" 2>/dev/null | head -n 1)
    place=$(tr '\0' '\n' <"/proc/$1/cmdline" | while read -r word; do
        awk -v word="$word" '$5 == word && / - fuse/ { print word; exit }' "/proc/$1/mountinfo"
    done | tail -n 1)
    echo "it runs as process $1${place:+ at $place}; stop it first:"
    if test -n "$unit"; then
        echo "  systemctl stop $unit"
    elif test -n "$place"; then
        echo "  umount $place"
    else
        echo "  kill $1"
    fi
}

# say_what_is_left: nothing where nothing is.
say_what_is_left() {
    left=
    for path in "$DESTDIR/var/lib/iifuse" "$DESTDIR/etc/iifuse" \
        "$DESTDIR"/etc/systemd/system/*.wants/iifuse@*.service; do
        test ! -e "$path" -a ! -L "$path" || left="$left $path"
    done
    test -z "$left" || echo "left as it is:$left"
}

reload() {
    test -n "$DESTDIR" || test ! -d /run/systemd/system || systemctl daemon-reload
}

case "$1" in
    install)
        before=$(readlink -f "$root/current" || :)
        build
        accompany
        swap
        forget_missing
        clean_up
        reload
        echo "iifuse $VERSION is installed in $PREFIX; begin with 'man 7 iifuse'"
        ;;
    uninstall)
        users=$(in_use "$root")
        if test -n "$users"; then
            for process in $users; do how_to_stop "$process"; done >&2
            exit 1
        fi
        test ! -e "$root/current/files" ||
            while read -r name; do rm -f "$DESTDIR$name"; done <"$root/current/files"
        rm -rf "$root"
        reload
        say_what_is_left
        ;;
esac
