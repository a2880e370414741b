/** Runs loops that HotSpot compiles and prints a result. */
public class Jvm {
    static int step(int s, int i) {
        return (s * 31 + i) % 65521;
    }

    public static void main(String[] arguments) {
        int sum = 0;
        for (int number = 1; number <= 97; number++) {
            int s = number;
            for (int i = 1; i <= 3000; i++) {
                s = step(s, i);
            }
            sum = (sum + s) % 65521;
        }
        System.out.println(sum);
    }
}
