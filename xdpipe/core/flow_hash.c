/* SPDX-License-Identifier: Apache-2.0 */
#include "flow_table.h"
#include "sip_hash.h"

/*
 * The hash of a flow's key, by the table's secret: of its three words that are not the same for all of
 * IPv4, or of all five. How many those are stands in the last of them.
 */
uint64_t xp_flow_hash(const struct xp_flow_meter_state *s, const struct xp_flow_key *key)
{
	struct xp_sip v = xp_sip_begin(s->table->key);

	if (key->rest >> XP_KEY_V6 & 1) {
		v = xp_sip_add(v, key->low[0]);
		v = xp_sip_add(v, key->high[0]);
	}
	v = xp_sip_add(v, key->low[1]);
	v = xp_sip_add(v, key->high[1]);
	return xp_sip_end(xp_sip_add(v, key->rest));
}
