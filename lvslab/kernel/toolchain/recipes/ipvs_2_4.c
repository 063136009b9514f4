/*
 * Lets one ipvsadm serve IPVS 1.0 (Linux 2.4) as well as 1.1 and later (Linux 2.6 and today).
 *
 * ipvsadm speaks to the kernel through socket options, and 2.4 has the same ones with other structures. This file
 * stands in for setsockopt() and getsockopt() (ld --wrap), asks the kernel's IPVS which version it is, and where that
 * is below 1.1.0 it translates. ipvsadm itself stays as it is.
 *
 * Facts from Linux 2.4.37.11, include/net/ip_vs.h and net/ipv4/ipvs/ip_vs_ctl.c:
 * - whatever is set is set with one structure (struct rule here), whose size is the least that the kernel takes;
 * - a destination has no thresholds, and no count of persistent connections;
 * - there is one answer for both sync daemons, and it does not tell their sync id;
 * - IP_VS_SO_GET_SERVICE wants exactly the length of its structure; later kernels and ipvsadm are not that strict;
 * - times are seconds; a service must have protocol TCP or UDP, even where a firewall mark is what it is known by.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
	BASE = 64 + 1024 + 64,
	SET_ADD = BASE + 2,
	SET_EDIT = BASE + 3,
	SET_DEL = BASE + 4,
	SET_FLUSH = BASE + 5,
	SET_ADDDEST = BASE + 7,
	SET_DELDEST = BASE + 8,
	SET_EDITDEST = BASE + 9,
	SET_TIMEOUT = BASE + 10,
	SET_STARTDAEMON = BASE + 11,
	SET_STOPDAEMON = BASE + 12,
	SET_ZERO = BASE + 15,
	GET_INFO = BASE + 1,
	GET_SERVICE = BASE + 3,
	GET_DESTS = BASE + 4,
	GET_DAEMON = BASE + 7,
	MASTER = 1,
	BACKUP = 2,
	NAME = 16,
};

/* What both have: the counters, the times, and how a service is given. Their order is the kernel's. */
struct counters {
	uint32_t conns, inpkts, outpkts;
	uint64_t inbytes, outbytes;
	uint32_t cps, inpps, outpps, inbps, outbps;
};

struct times {
	int32_t tcp, tcp_fin, udp;
};

struct service {
	uint16_t protocol;
	uint32_t addr;
	uint16_t port;
	uint32_t fwmark;
	char scheduler[NAME];
	uint32_t flags, timeout, netmask;
};

struct service_found {
	struct service is;
	uint32_t num_dests;
	struct counters stats;
};

struct dests_of {
	uint16_t protocol;
	uint32_t addr;
	uint16_t port;
	uint32_t fwmark, num_dests;
};

/* What ipvsadm gives and expects: IPVS 1.1 and later. */
struct dest {
	uint32_t addr;
	uint16_t port;
	uint32_t conn_flags;
	int32_t weight;
	uint32_t upper, lower;
};

struct dest_found {
	struct dest is;
	uint32_t active, inactive, persistent;
	struct counters stats;
};

struct sync_daemon {
	int32_t state;
	char interface[NAME];
	int32_t syncid;
};

/* What Linux 2.4 takes and gives: IPVS 1.0. */
struct rule {
	struct times times;
	struct sync_daemon daemon;
	struct service service;
	uint32_t addr;
	uint16_t port;
	uint32_t conn_flags;
	int32_t weight;
};

struct dest_found_2_4 {
	uint32_t addr;
	uint16_t port;
	uint32_t conn_flags;
	int32_t weight;
	uint32_t active, inactive;
	struct counters stats;
};

struct daemons_2_4 {
	int32_t state;
	char master[NAME], backup[NAME];
};

/* These sizes are those of the kernel's structures; gcc 3.4.6 said so. */
_Static_assert(sizeof(struct rule) == 96, "struct ip_vs_rule_user");
_Static_assert(sizeof(struct service_found) == 96, "struct ip_vs_service_user");
_Static_assert(sizeof(struct dest_found_2_4) == 72, "struct ip_vs_dest_user");
_Static_assert(sizeof(struct daemons_2_4) == 36, "struct ip_vs_daemon_user");

int __real_setsockopt(int fd, int level, int option, const void *value, socklen_t length);
int __real_getsockopt(int fd, int level, int option, void *value, socklen_t *length);

/* Whether the kernel's IPVS is older than 1.1.0. It cannot change while ipvsadm runs, unless it is loaded meanwhile. */
static int is_2_4(int fd)
{
	static int known = -1;
	uint32_t info[3]; /* version, size of the connection table, number of services */
	socklen_t length = sizeof(info);

	if (known < 0 && __real_getsockopt(fd, IPPROTO_IP, GET_INFO, info, &length) == 0)
		known = info[0] < 0x010100;
	return known == 1;
}

int __wrap_setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
	struct rule rule;

	if (level != IPPROTO_IP || option < BASE || option > SET_ZERO || !is_2_4(fd))
		return __real_setsockopt(fd, level, option, value, length);

	memset(&rule, 0, sizeof(rule));
	switch (option) {
	case SET_FLUSH:
		break;
	case SET_TIMEOUT:
		if (length < sizeof(rule.times))
			goto invalid;
		memcpy(&rule.times, value, sizeof(rule.times));
		break;
	case SET_STARTDAEMON:
	case SET_STOPDAEMON:
		if (length < sizeof(rule.daemon))
			goto invalid;
		memcpy(&rule.daemon, value, sizeof(rule.daemon));
		break;
	case SET_ADDDEST:
	case SET_DELDEST:
	case SET_EDITDEST: {
		struct dest dest;

		if (length < sizeof(rule.service) + sizeof(dest))
			goto invalid;
		memcpy(&dest, (const char *)value + sizeof(rule.service), sizeof(dest));
		if (dest.upper || dest.lower)
			goto invalid; /* rather than not to keep them */
		rule.addr = dest.addr;
		rule.port = dest.port;
		rule.conn_flags = dest.conn_flags;
		rule.weight = dest.weight;
	}
		/* fall through */
	case SET_ADD:
	case SET_EDIT:
	case SET_DEL:
	case SET_ZERO:
		if (length < sizeof(rule.service))
			goto invalid;
		memcpy(&rule.service, value, sizeof(rule.service));
		if (rule.service.fwmark)
			rule.service.protocol = IPPROTO_TCP;
		break;
	default:
		goto invalid;
	}
	return __real_setsockopt(fd, level, option, &rule, sizeof(rule));

invalid:
	errno = EINVAL;
	return -1;
}

static int get_service(int fd, void *value, socklen_t *length)
{
	socklen_t exactly = sizeof(struct service_found);

	if (*length < exactly) {
		errno = EINVAL;
		return -1;
	}
	return __real_getsockopt(fd, IPPROTO_IP, GET_SERVICE, value, &exactly);
}

static int get_dests(int fd, void *value, socklen_t *length)
{
	struct dests_of *asked = value;
	struct dest_found *wanted = (void *)(asked + 1);
	struct dest_found_2_4 *found;
	socklen_t size;
	void *answer;
	uint32_t i;

	if (*length < sizeof(*asked) || (*length - sizeof(*asked)) / sizeof(*wanted) < asked->num_dests) {
		errno = EINVAL;
		return -1;
	}
	size = sizeof(*asked) + asked->num_dests * sizeof(*found);
	answer = malloc(size);
	if (!answer)
		return -1;
	memset(answer, 0, size);
	memcpy(answer, asked, sizeof(*asked));
	if (__real_getsockopt(fd, IPPROTO_IP, GET_DESTS, answer, &size) < 0) {
		free(answer);
		return -1;
	}
	found = (void *)((struct dests_of *)answer + 1);
	for (i = 0; i < asked->num_dests; i++) {
		memset(&wanted[i], 0, sizeof(wanted[i]));
		wanted[i].is.addr = found[i].addr;
		wanted[i].is.port = found[i].port;
		wanted[i].is.conn_flags = found[i].conn_flags;
		wanted[i].is.weight = found[i].weight;
		wanted[i].active = found[i].active;
		wanted[i].inactive = found[i].inactive;
		wanted[i].stats = found[i].stats;
	}
	free(answer);
	return 0;
}

static int get_daemons(int fd, void *value, socklen_t *length)
{
	struct sync_daemon *wanted = value;
	struct daemons_2_4 found;
	socklen_t size = sizeof(found);

	if (*length < 2 * sizeof(*wanted)) {
		errno = EINVAL;
		return -1;
	}
	memset(&found, 0, sizeof(found));
	if (__real_getsockopt(fd, IPPROTO_IP, GET_DAEMON, &found, &size) < 0)
		return -1;
	memset(wanted, 0, 2 * sizeof(*wanted));
	if (found.state & MASTER) {
		wanted[0].state = MASTER;
		memcpy(wanted[0].interface, found.master, NAME - 1);
	}
	if (found.state & BACKUP) {
		wanted[1].state = BACKUP;
		memcpy(wanted[1].interface, found.backup, NAME - 1);
	}
	return 0;
}

int __wrap_getsockopt(int fd, int level, int option, void *value, socklen_t *length)
{
	if (level == IPPROTO_IP && (option == GET_SERVICE || option == GET_DESTS || option == GET_DAEMON) &&
	    is_2_4(fd)) {
		if (option == GET_SERVICE)
			return get_service(fd, value, length);
		return option == GET_DESTS ? get_dests(fd, value, length) : get_daemons(fd, value, length);
	}
	return __real_getsockopt(fd, level, option, value, length);
}
