/* Loaded with LD_PRELOAD: this host can be reached, any other is "Network is unreachable". See cut_off.py.
 *
 * Unix sockets, loopback and this host's own addresses still work: torchrun and gloo need them. It is both C and C++,
 * because the compiler that the recipes need may know only one of them. A name is still looked up by the C library,
 * which does not call these functions; that fetches nothing.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

static int refused;

/* Says to a test that this file is loaded, and how often it refused something in this process. */
int no_network_refused(void) { return refused; }

static int same_host(const void *address, int family) {
    struct ifaddrs *first, *one;
    int found = 0;
    if (getifaddrs(&first) != 0) return 0;
    for (one = first; one && !found; one = one->ifa_next) {
        if (!one->ifa_addr || one->ifa_addr->sa_family != family) continue;
        if (family == AF_INET)
            found = memcmp(&((const struct sockaddr_in *)one->ifa_addr)->sin_addr, address, 4) == 0;
        else
            found = memcmp(&((const struct sockaddr_in6 *)one->ifa_addr)->sin6_addr, address, 16) == 0;
    }
    freeifaddrs(first);
    return found;
}

static int is_here4(const unsigned char *address) {
    static const unsigned char any[4] = {0, 0, 0, 0}; /* To connect to it is to connect to this host. */
    return address[0] == 127 || memcmp(address, any, 4) == 0 || same_host(address, AF_INET);
}

static int is_elsewhere(const struct sockaddr *address, socklen_t length) {
    if (!address || length < sizeof(address->sa_family)) return 0;
    if (address->sa_family == AF_INET && length >= sizeof(struct sockaddr_in))
        return !is_here4((const unsigned char *)&((const struct sockaddr_in *)address)->sin_addr);
    if (address->sa_family == AF_INET6 && length >= sizeof(struct sockaddr_in6)) {
        const struct in6_addr *six = &((const struct sockaddr_in6 *)address)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(six)) return !is_here4((const unsigned char *)six + 12);
        return !(IN6_IS_ADDR_LOOPBACK(six) || IN6_IS_ADDR_UNSPECIFIED(six) || same_host(six, AF_INET6));
    }
    return 0;
}

static int refuse(void) {
    refused++;
    errno = ENETUNREACH;
    return -1;
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
    typedef int (*function)(int, const struct sockaddr *, socklen_t);
    if (is_elsewhere(address, length)) return refuse();
    return ((function)dlsym(RTLD_NEXT, "connect"))(socket, address, length);
}

ssize_t sendto(int socket, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length) {
    typedef ssize_t (*function)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    if (is_elsewhere(address, length)) return refuse();
    return ((function)dlsym(RTLD_NEXT, "sendto"))(socket, data, size, flags, address, length);
}

ssize_t sendmsg(int socket, const struct msghdr *message, int flags) {
    typedef ssize_t (*function)(int, const struct msghdr *, int);
    if (message && is_elsewhere((const struct sockaddr *)message->msg_name, message->msg_namelen)) return refuse();
    return ((function)dlsym(RTLD_NEXT, "sendmsg"))(socket, message, flags);
}

#ifdef __cplusplus
}
#endif
