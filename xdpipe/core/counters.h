/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of what xdpipe counts. C makes struct fields of it, Python reads it at run time
 * (xp_counter_names[]), the documentation is generated from it.
 */
#ifndef XP_COUNTERS_H
#define XP_COUNTERS_H

/*
 * For each port of a worker, uint64_t each, written by the worker only (plain aligned stores) and
 * read by the supervisor. X(name, meaning)
 */
#define XP_COUNTERS(X)                                                                             \
	X(received, "packets taken from the rx ring")                                              \
	X(received_bytes, "their bytes")                                                           \
	X(batches, "batches that held a packet")                                                   \
	X(verdict_drop, "packets whose verdict was DROP")                                          \
	X(verdict_tx, "packets whose verdict was TX")                                              \
	X(verdict_pass, "packets whose verdict was PASS")                                          \
	X(verdict_forward, "packets whose verdict was FORWARD")                                    \
	X(verdict_invalid, "packets with a verdict that there is not; dropped")                    \
	X(verdict_lost, "packets in the hands of a worker when it died")                           \
	X(forwarded, "packets that came by other ports, to go out of this one")                    \
	X(tx_submitted, "packets put on the tx ring")                                              \
	X(tx_completed, "packets come back by the completion ring")                                \
	X(tx_dropped, "completed but not sent: the kernel said EBUSY")                             \
	X(tx_no_room, "packets that the tx ring had no room for")                                  \
	X(tx_abandoned, "still not completed when the worker stopped")                             \
	X(tx_errors, "send calls that failed otherwise, by the last errno")                        \
	X(tx_errno, "that errno")                                                                  \
	X(tx_times_lost, "times of sending that no stage saw: too many between two batches")      \
	X(passed, "packets given back to the kernel")                                              \
	X(pass_too_long, "PASS packets longer than the kernel's frames, some 3400 bytes")             \
	X(pass_failed, "PASS packets that the kernel did not take, by the last errno")             \
	X(pass_errno, "that errno; 0: there is no way back, in generic mode for one")              \
	X(received_more, "further frames of received packets that came in several")                \
	X(tx_submitted_more, "further frames of packets put on the tx ring")                       \
	X(tx_completed_more, "further frames of packets come back")                                \
	X(next_received, "what counters will be when the rings have moved: for the case that")      \
	X(next_received_more, "the worker dies between ring and counter; with packets that")       \
	X(next_tx_submitted, "come in several frames the rings do not tell")                       \
	X(next_tx_submitted_more, "likewise")                                                      \
	X(next_tx_completed, "likewise")                                                           \
	X(next_tx_completed_more, "likewise")                                                      \
	X(batch_port, "of the first port: number of the port that the batch came by")             \
	X(filled, "frames put on the fill ring")                                                   \
	X(wakeups, "calls that wake the driver: send, receive")                                    \
	X(busy_polls, "calls that ran the driver's receive work, busy polling")                    \
	X(polls, "of the first port: poll calls")                                                  \
	X(busy_ns, "of the first port: time in cycles that moved packets; ns")                     \
	X(frames_free, "of the first port: frames on the free list")                               \
	X(frames_batch, "of the first port: frames in the batch")                                  \
	X(frames_fill, "frames on the fill ring")                                                  \
	X(frames_rx, "frames on the rx ring")                                                      \
	X(frames_tx, "frames on the tx ring")                                                      \
	X(frames_completion, "frames on the completion ring")                                      \
	X(frames_kernel, "frames in the kernel's hands, on no ring")

#endif
