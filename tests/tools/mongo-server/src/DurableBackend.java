// A backend that writes to its file before it acknowledges a write.

import de.bwaldvogel.mongo.backend.h2.H2Backend;
import de.bwaldvogel.mongo.bson.Document;
import io.netty.channel.Channel;
import java.util.Locale;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.Supplier;
import org.h2.mvstore.MVStore;

final class DurableBackend extends H2Backend {
    /** Commands that change nothing; all others are taken for writes. */
    private static final Set<String> READS = Set.of(
            "aggregate", "buildinfo", "collstats", "connectionstatus", "count", "dbstats", "distinct", "endsessions",
            "find", "getcmdlineopts", "getlog", "getmore", "hello", "hostinfo", "ismaster", "killcursors",
            "listcollections", "listdatabases", "listindexes", "ping", "serverstatus", "whatsmyuri");

    /** Each commit appends to the file; now and then the space of what was overwritten is used again. */
    private static final int COMMITS_PER_COMPACTION = 256;
    private static final int COMPACTION_BYTES = 4 << 20;
    private static final int FILL_PERCENT = 60;

    /** Held shared while a command writes, alone while its changes go to the file: no commit sees half a command. */
    private final ReentrantReadWriteLock writing = new ReentrantReadWriteLock();
    private final AtomicLong written = new AtomicLong();
    private long committed;
    private long commits;

    DurableBackend(MVStore store) {
        super(store);
    }

    @Override
    public Document handleCommand(Channel channel, String database, String command, Document query) {
        return durably(query, () -> super.handleCommand(channel, database, command, query));
    }

    @Override
    public void close() {
        writing.writeLock().lock();
        try {
            if (!getMvStore().isClosed()) {
                super.close();
            }
        } finally {
            writing.writeLock().unlock();
        }
    }

    /** Commits also after an error: an ordered batch keeps what came before the failed document. */
    private Document durably(Document command, Supplier<Document> run) {
        if (isRead(command)) {
            return run.get();
        }
        long mine;
        writing.readLock().lock();
        try {
            return run.get();
        } finally {
            mine = written.incrementAndGet();
            writing.readLock().unlock();
            commit(mine);
        }
    }

    /** One commit serves every command that had finished by then. */
    private void commit(long mine) {
        writing.writeLock().lock();
        try {
            if (committed < mine) {
                long all = written.get();
                commit();
                committed = all;
                if (++commits % COMMITS_PER_COMPACTION == 0) {
                    getMvStore().compact(FILL_PERCENT, COMPACTION_BYTES);
                }
            }
        } finally {
            writing.writeLock().unlock();
        }
    }

    private static boolean isRead(Document command) {
        if (command.isEmpty()) {
            return true;
        }
        String name = command.keySet().iterator().next().toLowerCase(Locale.ROOT);
        return READS.contains(name) && !writesItsResult(name, command);
    }

    private static boolean writesItsResult(String name, Document command) {
        return name.equals("aggregate") && String.valueOf(command.get("pipeline")).matches("(?s).*\\$(out|merge)\\b.*");
    }
}
