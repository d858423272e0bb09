/*
 * The command's user and groups, by the /etc/passwd and /etc/group of its root.
 */
#ifndef USER_H
#define USER_H

#include "system.h"

/* Supplementary groups at most (NGROUPS_MAX is larger; few users have more). */
#define GROUPS 256

/* The command's user. */
struct user {
	u32 uid, gid;
	u32 groups[GROUPS];
	int count;
	const char *home;
};

/* Finds out who USER[:GROUP] is, names or numbers; an empty USER is root. Without a GROUP it is the user's own, and others have the user
 * as a member. Ends the process if there is no such user or group. */
void resolve_user(char *text, struct user *user);

#endif
