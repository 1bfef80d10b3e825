/* SPDX-License-Identifier: Apache-2.0 */
/* Columns of the stage Decap, the kinds of tunnels, and its reasons to enter one no further. */
#ifndef XP_COLUMNS_DECAP_H
#define XP_COLUMNS_DECAP_H

#define XP_DECAP_COLUMNS(X)                                                                        \
	X(n_tunnels, uint8_t, 1, 0, "Decap",                                                       \
	  "tunnels that were entered: 0 to 4; the columns of Headers speak of the packet within")  \
	X(tunnels, uint8_t, 4, 0, "Decap", "TUNNEL_*: their kinds, outermost first; else 0")       \
	X(tunnel_id, uint32_t, 4, 0, "Decap",                                                      \
	  "VNI of VXLAN and Geneve, key of GRE, TEID of GTP-U, session of ERSPAN; else 0")         \
	X(inner, xp_offset_t, 1, 0, "Decap",                                                           \
	  "offset of the first header of the innermost packet that was reached; no tunnel: absent") \
	X(outer_l3, xp_offset_t, 1, 0, "Decap", "offset of the outermost IP header; no tunnel: absent") \
	X(outer_src, uint8_t, 16, 0, "Decap", "source address of the outermost IP; no tunnel: 0")  \
	X(outer_dst, uint8_t, 16, 0, "Decap", "destination of the outermost IP; no tunnel: 0")     \
	X(decap_malformed, uint8_t, 1, 0, "Decap",                                                 \
	  "0, or DECAP_MALFORMED_*: why the next tunnel was not entered")

/* X(name, meaning); the value is the place in the list, from 1 */
#define XP_TUNNELS(X)                                                                              \
	X(VXLAN, "VXLAN (RFC 7348)")                                                               \
	X(GENEVE, "Geneve (RFC 8926)")                                                             \
	X(GRE, "GRE (RFC 2784, RFC 2890)")                                                         \
	X(ERSPAN, "ERSPAN I, II or III, over GRE")                                                 \
	X(GTPU, "GTP-U (3GPP TS 29.281)")                                                          \
	X(IPIP, "IPv4 in IPv4 (RFC 2003)")                                                         \
	X(6IN4, "IPv6 in IPv4 (RFC 4213)")                                                         \
	X(4IN6, "IPv4 in IPv6 (RFC 2473)")                                                         \
	X(6IN6, "IPv6 in IPv6 (RFC 2473)")

#define XP_DECAP_MALFORMED(X)                                                                      \
	X(VXLAN_SHORT, "ends within the VXLAN header")                                             \
	X(VXLAN_FLAGS, "VXLAN without the flag I, which says that there is a VNI")                 \
	X(GENEVE_SHORT, "ends within the Geneve header")                                           \
	X(GENEVE_VERSION, "Geneve's version is not 0")                                             \
	X(GENEVE_OPTIONS, "Geneve's options end beyond the packet")                                \
	X(GRE_SHORT, "ends within the GRE header")                                                 \
	X(GRE_VERSION, "GRE's version is neither 0 nor 1")                                         \
	X(GRE_FLAGS, "GRE with source routes or reserved flags, which nobody may take (RFC 2784)") \
	X(ERSPAN_SHORT, "ends within the ERSPAN header")                                           \
	X(ERSPAN_VERSION, "ERSPAN's version is not that of its GRE protocol")                      \
	X(GTPU_SHORT, "ends within the GTP-U header")                                              \
	X(GTPU_VERSION, "GTP's version is not 1, or it is GTP'")                                   \
	X(GTPU_LEN, "GTP-U's length is more than UDP carries, or less than its optional fields")   \
	X(GTPU_EXTENSION, "a GTP-U extension header of length 0 or beyond the packet, or more than 8")

enum xp_tunnel {
	XP_TUNNEL_NONE,
#define X(name, doc) XP_TUNNEL_##name,
	XP_TUNNELS(X)
#undef X
		XP_N_TUNNELS
};

enum xp_decap_malformed {
	XP_DECAP_MALFORMED_NONE,
#define X(name, doc) XP_DECAP_MALFORMED_##name,
	XP_DECAP_MALFORMED(X)
#undef X
		XP_N_DECAP_MALFORMED
};

#endif
