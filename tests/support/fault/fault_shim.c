/* LD_PRELOAD: calls on chosen files fail while a trigger file says so.
 *
 * The file that FAULTS names holds lines: OPERATION ERRNO PATH, where OPERATION is read, write,
 * sync, any or thread, ERRNO a number (0: the first half is done, a short read or write), and PATH the end
 * of the name of the file. The first line that fits counts. No file, no failure.
 * With thread, no thread and no process can be started; its PATH is *.
 *
 * A sync that fails so makes a call with flags that do not exist, by which a tracer knows of it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Does a rule fit? -1: it does not; else an errno, 0 for short. */
static int judged(const char *rule, const char *operation, const char *name)
{
    char wanted[16], path[4097];
    int code;
    if (sscanf(rule, "%15s %d %4096s", wanted, &code, path) != 3)
        return -1;
    if (strcmp(wanted, "any") && strcmp(wanted, operation))
        return -1;
    if (strlen(name) < strlen(path))
        return -1;
    return strcmp(name + strlen(name) - strlen(path), path) ? -1 : code;
}

/* -1: go on; else an errno, 0 for short. */
static int verdict_on(const char *name, const char *operation)
{
    char rules[8600];
    int code = -1, saved = errno;
    const char *where = getenv("FAULTS");
    int file = where ? (int)syscall(SYS_openat, AT_FDCWD, where, O_RDONLY | O_CLOEXEC, 0) : -1;
    if (file < 0) {
        errno = saved;
        return -1;
    }
    ssize_t length = syscall(SYS_read, file, rules, sizeof rules - 1);
    syscall(SYS_close, file);
    errno = saved;
    rules[length > 0 ? length : 0] = 0;
    for (char *rest, *rule = strtok_r(rules, "\n", &rest); rule && code < 0;
         rule = strtok_r(NULL, "\n", &rest))
        code = judged(rule, operation, name);
    return code;
}

static int verdict(int fd, const char *operation)
{
    char name[4097], link[64];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    errno = saved;
    name[length > 0 ? length : 0] = 0;
    return verdict_on(name, operation);
}

/* For a tracer: this sync has failed. */
static int failed_sync(int fd, int code)
{
    syscall(SYS_sync_file_range, fd, 0, 0, ~0);
    errno = code;
    return -1;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define JUDGE(operation, short_one)              \
    int code = verdict(fd, operation);           \
    if (code > 0) {                              \
        errno = code;                            \
        return -1;                               \
    }                                            \
    if (code == 0)                               \
        return short_one;

ssize_t pread64(int fd, void *data, size_t size, off64_t at)
{
    REAL(pread64);
    JUDGE("read", real(fd, data, (size + 1) / 2, at))
    return real(fd, data, size, at);
}

ssize_t pread(int fd, void *data, size_t size, off_t at) { return pread64(fd, data, size, at); }

ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off64_t at, int flags)
{
    REAL(preadv64v2);
    JUDGE("read", real(fd, parts, count, at, flags))
    return real(fd, parts, count, at, flags);
}

ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t at, int flags)
{
    return preadv64v2(fd, parts, count, at, flags);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    REAL(pwrite64);
    JUDGE("write", real(fd, data, (size + 1) / 2, at))
    return real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    return pwrite64(fd, data, size, at);
}

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    JUDGE("write", real(fd, data, (size + 1) / 2))
    return real(fd, data, size);
}

int fallocate64(int fd, int mode, off64_t at, off64_t size)
{
    REAL(fallocate64);
    int code = verdict(fd, "write");
    if (code > 0) {
        errno = code;
        return -1;
    }
    return real(fd, mode, at, size);
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    int code = verdict(fd, "sync");
    if (code > 0)
        return failed_sync(fd, code);
    return real(fd);
}

int fsync(int fd)
{
    REAL(fsync);
    int code = verdict(fd, "sync");
    if (code > 0)
        return failed_sync(fd, code);
    return real(fd);
}

int pthread_create(pthread_t *made, const pthread_attr_t *how, void *(*begin)(void *), void *what)
{
    REAL(pthread_create);
    int code = verdict_on("*", "thread");
    return code > 0 ? code : real(made, how, begin, what);
}

pid_t fork(void)
{
    REAL(fork);
    int code = verdict_on("*", "thread");
    if (code > 0) {
        errno = code;
        return -1;
    }
    return real();
}

pid_t vfork(void) /* a child of its own memory will do */
{
    return fork();
}
