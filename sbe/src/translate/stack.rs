//! [`HostStack`]: the stacks on which emitted code runs. They hold a host return address for each guest call that has not
//! returned. Code of each privilege level has a stack of its own, so that calls of user code can return after a system call or an
//! interrupt.

use super::context::Context;

/// The size of a stack in bytes.
const BYTES: usize = 1 << 20;
/// The size of a stack in words.
const WORDS: usize = BYTES / size_of::<u64>();
/// The most bytes that open calls may take before a run begins; the run's own calls and signal handlers of the host take more.
const LIMIT: u64 = 256 << 10;
/// The most polls of one run: each call counts one and takes 16 bytes.
pub const MOST_POLLS: u32 = 16 << 10;

/// The memory of both stacks: that of CPL 0, then that of CPL 3.
pub struct HostStack {
    words: Box<[u64]>,
}

impl HostStack {
    /// Creates stacks whose outermost returns go to the host address `dispatcher`.
    pub fn new(dispatcher: u64) -> Self {
        let mut words = vec![0; 2 * WORDS].into_boxed_slice();
        for stack in words.chunks_exact_mut(WORDS) {
            stack[WORDS - 1] = dispatcher;
        }
        Self { words }
    }

    /// The stack pointers of CPL 0 and CPL 3 when no call is open.
    fn bottoms(&self) -> [u64; 2] {
        [WORDS - 1, 2 * WORDS - 1].map(|last| {
            let last = self.words.as_ptr().wrapping_add(last);
            last.expose_provenance() as u64
        })
    }

    /// Resets both stacks: no call is open.
    pub fn reset(&self, context: &mut Context) {
        let [kernel, user] = self.bottoms();
        context.stack_bottom = kernel;
        context.user_stack = user;
        context.stack = if context.cpl == 3 { user } else { kernel };
    }

    /// Switches to the stack of `cpl`, 0 or 3. The stack of CPL 0 is empty whenever it is entered.
    pub fn change_level(&self, context: &mut Context, cpl: u32) {
        if context.cpl == cpl {
            return;
        }
        if cpl == 3 {
            context.stack = context.user_stack;
        } else {
            context.user_stack = context.stack;
            context.stack = context.stack_bottom;
        }
        context.cpl = cpl;
    }

    /// Resets both stacks when little room is left for the calls of a run.
    pub fn make_room(&self, context: &mut Context) {
        let [kernel, user] = self.bottoms();
        let (kernel_stack, user_stack) = if context.cpl == 3 {
            (kernel, context.stack)
        } else {
            (context.stack, context.user_stack)
        };
        let taken = [
            kernel.wrapping_sub(kernel_stack),
            user.wrapping_sub(user_stack),
        ];
        if taken.into_iter().any(|bytes| bytes > LIMIT) {
            self.reset(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISPATCHER: u64 = 0x1234;

    #[test]
    fn calls_of_user_code_outlive_the_kernel() {
        let stack = HostStack::new(DISPATCHER);
        let [kernel, user] = stack.bottoms();
        let mut context = Context::default();
        stack.reset(&mut context);
        assert_eq!(context.stack, kernel);
        context.stack -= 16;
        stack.change_level(&mut context, 3);
        assert_eq!(context.stack, user);
        context.stack -= 32;
        stack.change_level(&mut context, 0);
        assert_eq!((context.cpl, context.stack), (0, kernel));
        stack.change_level(&mut context, 3);
        assert_eq!((context.cpl, context.stack), (3, user - 32));
        stack.reset(&mut context);
        assert_eq!((context.stack, context.user_stack), (user, user));
    }

    #[test]
    fn many_calls_are_forgotten_at_either_level() {
        let stack = HostStack::new(DISPATCHER);
        let [kernel, user] = stack.bottoms();
        for cpl in [0, 3] {
            let mut context = Context::default();
            stack.reset(&mut context);
            stack.change_level(&mut context, 3);
            context.stack -= LIMIT;
            stack.change_level(&mut context, cpl);
            stack.make_room(&mut context);
            stack.change_level(&mut context, 3);
            assert_eq!(context.stack, user - LIMIT);
            context.stack -= 16;
            stack.change_level(&mut context, cpl);
            stack.make_room(&mut context);
            let bottom = if cpl == 3 { user } else { kernel };
            assert_eq!((context.stack, context.user_stack), (bottom, user));
        }
    }

    #[test]
    fn outermost_returns_go_to_the_dispatcher() {
        let stack = HostStack::new(DISPATCHER);
        for word in [WORDS - 1, 2 * WORDS - 1] {
            assert_eq!(stack.words[word], DISPATCHER);
        }
    }
}
