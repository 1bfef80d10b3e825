/* SPDX-License-Identifier: Apache-2.0 */
/* A packet socket (man 7 packet), many packets a call. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "traffic/engines.h"

#define CALL 64 /* packets */

static uint32_t send_socket(struct xp_lane *lane, const struct xp_laid *laid, uint32_t first,
			    uint32_t n)
{
	struct xp_socket_lane *s = (struct xp_socket_lane *)lane;
	struct mmsghdr messages[CALL];
	struct iovec bytes[CALL];
	int sent;

	n = n < CALL ? n : CALL;
	memset(messages, 0, n * sizeof(*messages));
	for (uint32_t i = 0; i < n; i++) {
		bytes[i].iov_base = lane->memory + laid->at[first + i];
		bytes[i].iov_len = laid->len[first + i];
		messages[i].msg_hdr.msg_iov = bytes + i;
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	sent = sendmmsg(s->fd, messages, n, MSG_DONTWAIT);
	if (sent < 0) {
		if (errno != EAGAIN && errno != ENOBUFS && errno != EINTR)
			lane->error = errno;
		return 0;
	}
	lane->taken += (uint32_t)sent;
	lane->done += (uint32_t)sent;
	return (uint32_t)sent;
}

static void settle_socket(struct xp_lane *lane)
{
	(void)lane; /* the kernel has copied what it took */
}

void xp_socket_lane_init(struct xp_socket_lane *s)
{
	s->lane.send = send_socket;
	s->lane.settle = settle_socket;
	s->lane.n_max = CALL;
}
