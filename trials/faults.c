/* Loaded before the C library (LD_PRELOAD): counts the calls that change what lies in one folder, records them, and at
   the n-th does what a trial asks for: the process is killed or stopped, or the call fails, from then on or once. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static int record = -1, action, lasting;
static long at, count;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

/* Begin to watch a folder, a resolved path. what: minus a signal, or an error number; n: at which call, 0 for none;
   last: whether later calls fail too; descriptor: where to record, -1 for nowhere. */
void faults_begin(const char *path, int descriptor, long n, int what, int last)
{
    snprintf(folder, sizeof folder, "%s/", path);
    record = descriptor, at = n, action = what, lasting = last, count = 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int within(const char *path, char *whole)
{
    if (!*folder || !path)
        return 0;
    if (*path == '/')
        snprintf(whole, PATH_MAX, "%s", path);
    else {
        char here[PATH_MAX / 2] = "";
        if (!getcwd(here, sizeof here))
            return 0;
        snprintf(whole, PATH_MAX, "%s/%s", here, path);
    }
    return strncmp(whole, folder, strlen(folder)) == 0 || strlen(whole) + 1 == strlen(folder);
}

/* Whether a descriptor is open on what lies in the folder, or on the folder. */
static int held(int descriptor, char *whole)
{
    char link[64], path[PATH_MAX];
    if (!*folder)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return *path == '/' && within(path, whole);
}

/* Whether the call that comes is to fail; one that grows nothing succeeds on a full disk. */
static int refused(int grows, int torn, const void *data, size_t size)
{
    long n = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (!at || n < at || (n > at && !lasting))
        return 0;
    if (action < 0) {
        if (-action == SIGKILL && torn >= 0 && REAL(write)(torn, data, size / 2) < 0)
            return 0;
        kill(getpid(), -action);
        return 0;
    }
    if (action == ENOSPC && !grows)
        return 0;
    errno = action;
    return 1;
}

static void note(const char *what, const char *path, const char *other, ino_t inode, int64_t offset, const void *data,
                 size_t size)
{
    if (record < 0)
        return;
    int error = errno;
    char name[8] = "";
    strncpy(name, what, sizeof name - 1);
    uint64_t numbers[5] = {inode, (uint64_t)offset, size, path ? strlen(path) : 0, other ? strlen(other) : 0};
    struct iovec parts[5] = {{name, sizeof name}, {numbers, sizeof numbers}, {(void *)path, numbers[3]},
                             {(void *)other, numbers[4]}, {(void *)data, data ? size : 0}};
    pthread_mutex_lock(&turn);
    if (REAL(writev)(record, parts, 5) < 0)
        _exit(99);
    pthread_mutex_unlock(&turn);
    errno = error;
}

static ino_t inode_of(const char *path)
{
    struct stat status;
    return lstat(path, &status) ? 0 : status.st_ino;
}

static ino_t inode_held(int descriptor)
{
    struct stat status;
    return fstat(descriptor, &status) ? 0 : status.st_ino;
}

static int opened(int (*real)(int, const char *, int, ...), int where, const char *path, int flags, mode_t mode)
{
    char whole[PATH_MAX];
    if ((flags & O_ACCMODE) == O_RDONLY || where != AT_FDCWD || !within(path, whole))
        return real(where, path, flags, mode);
    ino_t before = inode_of(whole);
    if (refused(flags & O_CREAT, -1, NULL, 0))
        return -1;
    int descriptor = real(where, path, flags, mode);
    if (descriptor >= 0 && !before)
        note("create", whole, NULL, inode_held(descriptor), 0, NULL, 0);
    else if (descriptor >= 0)
        note(flags & O_TRUNC ? "size" : "open", whole, NULL, before, 0, NULL, 0);
    return descriptor;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & O_CREAT) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...) { MODE(flags) return opened(REAL(openat), AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(REAL(openat64), AT_FDCWD, path, flags, mode); }
int openat(int where, const char *path, int flags, ...) { MODE(flags) return opened(REAL(openat), where, path, flags, mode); }
int openat64(int where, const char *path, int flags, ...) { MODE(flags) return opened(REAL(openat64), where, path, flags, mode); }

ssize_t write(int descriptor, const void *data, size_t size)
{
    char whole[PATH_MAX];
    if (descriptor == record || !held(descriptor, whole))
        return REAL(write)(descriptor, data, size);
    if (refused(1, descriptor, data, size))
        return -1;
    ssize_t done = REAL(write)(descriptor, data, size);
    if (done > 0)
        note("write", whole, NULL, inode_held(descriptor), lseek(descriptor, 0, SEEK_CUR) - done, data, done);
    return done;
}

ssize_t writev(int descriptor, const struct iovec *parts, int number)
{
    char whole[PATH_MAX];
    if (descriptor == record || !held(descriptor, whole))
        return REAL(writev)(descriptor, parts, number);
    for (int part = 0; part < number; part++)
        if (parts[part].iov_len)
            return write(descriptor, parts[part].iov_base, parts[part].iov_len); /* a short write, as may be */
    return 0;
}

static ssize_t placed(ssize_t (*real)(int, const void *, size_t, off_t), int descriptor, const void *data, size_t size,
                      off_t offset)
{
    char whole[PATH_MAX];
    if (!held(descriptor, whole))
        return real(descriptor, data, size, offset);
    if (refused(1, -1, data, size))
        return -1;
    ssize_t done = real(descriptor, data, size, offset);
    if (done > 0)
        note("write", whole, NULL, inode_held(descriptor), offset, data, done);
    return done;
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) { return placed(REAL(pwrite), descriptor, data, size, offset); }
ssize_t pwrite64(int descriptor, const void *data, size_t size, off_t offset) { return placed(REAL(pwrite64), descriptor, data, size, offset); }

/* Calls on one descriptor, and on one or two paths. */
#define ON_DESCRIPTOR(name, what, grows, size, declared, ...) \
    int name declared \
    { \
        char whole[PATH_MAX]; \
        if (!held(descriptor, whole)) \
            return REAL(name)(__VA_ARGS__); \
        if (refused(grows, -1, NULL, 0)) \
            return -1; \
        int answer = REAL(name)(__VA_ARGS__); \
        if (answer == 0) \
            note(what, whole, NULL, inode_held(descriptor), size, NULL, 0); \
        return answer; \
    }

ON_DESCRIPTOR(fsync, "fsync", 1, 0, (int descriptor), descriptor)
ON_DESCRIPTOR(fdatasync, "fsync", 1, 0, (int descriptor), descriptor)
ON_DESCRIPTOR(ftruncate, "size", 1, size, (int descriptor, off_t size), descriptor, size)
ON_DESCRIPTOR(ftruncate64, "size", 1, size, (int descriptor, off_t size), descriptor, size)
ON_DESCRIPTOR(flock, "flock", 0, 0, (int descriptor, int how), descriptor, how)

/* Answers with the error number itself. */
static int allocated(int (*real)(int, off_t, off_t), int descriptor, off_t offset, off_t size)
{
    char whole[PATH_MAX];
    if (!held(descriptor, whole))
        return real(descriptor, offset, size);
    if (refused(1, -1, NULL, 0))
        return errno;
    int answer = real(descriptor, offset, size);
    struct stat status;
    if (answer == 0 && fstat(descriptor, &status) == 0)
        note("size", whole, NULL, status.st_ino, status.st_size, NULL, 0);
    return answer;
}

int posix_fallocate(int descriptor, off_t offset, off_t size) { return allocated(REAL(posix_fallocate), descriptor, offset, size); }
int posix_fallocate64(int descriptor, off_t offset, off_t size) { return allocated(REAL(posix_fallocate64), descriptor, offset, size); }

#define ON_PATH(name, what, grows, declared, ...) \
    int name declared \
    { \
        char whole[PATH_MAX]; \
        if (!within(path, whole)) \
            return REAL(name)(__VA_ARGS__); \
        ino_t inode = inode_of(whole); \
        if (refused(grows, -1, NULL, 0)) \
            return -1; \
        int answer = REAL(name)(__VA_ARGS__); \
        if (answer == 0) \
            note(what, whole, NULL, inode ? inode : inode_of(whole), 0, NULL, 0); \
        return answer; \
    }

ON_PATH(unlink, "unlink", 0, (const char *path), path)
ON_PATH(rmdir, "unlink", 0, (const char *path), path)
ON_PATH(mkdir, "mkdir", 1, (const char *path, mode_t mode), path, mode)
ON_PATH(chmod, "chmod", 0, (const char *path, mode_t mode), path, mode)

int unlinkat(int where, const char *name, int flags)
{
    char path[PATH_MAX], whole[PATH_MAX];
    if (where == AT_FDCWD || !held(where, path))
        return REAL(unlinkat)(where, name, flags);
    if (refused(0, -1, NULL, 0))
        return -1;
    snprintf(whole, sizeof whole, "%.2000s/%.2000s", path, name);
    ino_t inode = inode_of(whole);
    int answer = REAL(unlinkat)(where, name, flags);
    if (answer == 0)
        note("unlink", whole, NULL, inode, 0, NULL, 0);
    return answer;
}

#define ON_PATHS(name, what, declared, ...) \
    int name declared \
    { \
        char whole[PATH_MAX], other[PATH_MAX]; \
        if (!within(path, whole) || !within(target, other)) \
            return REAL(name)(__VA_ARGS__); \
        ino_t inode = inode_of(whole), replaced = inode_of(other); \
        if (refused(1, -1, NULL, 0)) \
            return -1; \
        int answer = REAL(name)(__VA_ARGS__); \
        if (answer == 0) \
            note(what, whole, other, inode, replaced, NULL, 0); \
        return answer; \
    }

ON_PATHS(rename, "rename", (const char *path, const char *target), path, target)
ON_PATHS(link, "link", (const char *path, const char *target), path, target)
ON_PATHS(renameat2, flags & RENAME_EXCHANGE ? "swap" : "rename",
         (int from, const char *path, int to, const char *target, unsigned flags), from, path, to, target, flags)
