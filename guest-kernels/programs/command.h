/*
 * The command, and how a process becomes it.
 */
#ifndef COMMAND_H
#define COMMAND_H

/* The command. */
struct command {
	char *user;
	char *folder;
	int rows, columns;
	int argc;
	char **argv;
	char **env;
};

/* Reads the file that describes the command. Returns whether it does. */
int read_command(const char *path, struct command *command);

/* In the child: becomes the command, in `root`. `pipes` are its standard streams, unless it has a terminal. */
void become(struct command *command, const char *root, const int *pipes) __attribute__((noreturn));

#endif
